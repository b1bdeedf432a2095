"""What every stage stands on: parameters, data sets on disk, and the frame of a stage."""

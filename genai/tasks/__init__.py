"""What a task is, one file a task: its metrics, which one ranks, its figures, what a served model takes and answers."""

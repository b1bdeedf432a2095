"""What each command does, one file a command; the command line is parsed in genai/__main__.py."""

"""What each command is called, its options and its help; a file for each noun."""

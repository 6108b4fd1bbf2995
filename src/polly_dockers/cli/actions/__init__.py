"""What each command does; one file for each noun, with the same name as in ``commands``."""

"""What each command does; a file for each noun, named as the one in ``commands``."""

"""The name, the options and the help of each command; one file for each noun."""

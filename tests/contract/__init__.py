"""What every implementation keeps to, whichever database or store it is."""

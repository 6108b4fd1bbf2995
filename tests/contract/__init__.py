"""What every database and every store of blobs guarantees."""

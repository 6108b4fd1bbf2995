"""What the product needs of the operating system: owners of files, processes, addresses, the log's pipe."""

"""HTTP: parse a request, call one use case, write the response. Nothing here decides or stores anything."""

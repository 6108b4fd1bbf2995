"""The HTTP side: parse a request, call one use case, render the answer. Nothing here decides or stores."""

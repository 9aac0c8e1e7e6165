"""What engines behind HTTP servers share: how many requests at a time, when one goes again, to which server, and the loop."""

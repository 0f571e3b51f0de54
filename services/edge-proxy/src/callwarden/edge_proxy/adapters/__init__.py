"""What joins the edge to sockets, streams, NATS and disk."""

"""Where the weights of a model are while they are not at work."""

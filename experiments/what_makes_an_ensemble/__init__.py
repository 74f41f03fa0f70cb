"""What makes an ensemble: who is in it, how the answers are joined, and how many are enough."""

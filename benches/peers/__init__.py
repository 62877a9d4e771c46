"""Other engines side by side with ours; see README.md."""

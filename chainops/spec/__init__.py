"""Chain files: what they may say, and the Runnables they become."""

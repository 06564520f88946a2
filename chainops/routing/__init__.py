"""Which of several Runnables answers a question, and why."""

"""What several rooms read text by: sentences, word tokens, and the passages block of a prompt."""

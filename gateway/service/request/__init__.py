"""What is asked: the body and its features, the steering, and the ranked plan."""

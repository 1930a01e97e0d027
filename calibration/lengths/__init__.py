"""`joulegate lengths`: answer lengths from the words of a prompt, trained and tried."""

"""What a submission does wrong, before it costs anything."""

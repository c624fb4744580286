"""What an operator sees of the fleet: pure modules that judge, count and tell, and the page's files."""

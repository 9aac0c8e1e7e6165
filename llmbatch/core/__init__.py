"""What every room may use: the values that flow, the errors, small tools. Imports nothing above it."""

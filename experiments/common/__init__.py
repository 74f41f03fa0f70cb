"""What all experiments share: the command, the table, what it ran on, numbers in a README."""

"""The inspector without input, output and clock: packets in, commands out."""

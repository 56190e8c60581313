"""What reaches a run from outside: signals that ask it to stop, and other runs that want its folder."""

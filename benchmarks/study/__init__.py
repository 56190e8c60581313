"""Studies of where cycles pay: registered before they run, run by seeds, told with intervals."""

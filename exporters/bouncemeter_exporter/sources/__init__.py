"""Where lines come from: files, directories, standard input."""

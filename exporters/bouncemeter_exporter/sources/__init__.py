"""Where lines come from: files and directories, standard input and FIFOs, the journal, syslog. One module per kind."""

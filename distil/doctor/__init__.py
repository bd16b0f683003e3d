"""What a job will find: on this machine, on its disk, on the network and on other hosts; one line a finding."""

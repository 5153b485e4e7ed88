# Studies beyond the paper: exact and independently computed answers beside its approximations.
# Each ends in one file results/laboratory/{study}.nc, which claims and figures read.
LABORATORY = []

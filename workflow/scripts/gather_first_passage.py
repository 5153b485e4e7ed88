from prologue import begin

begin(snakemake)

from first_passage_files import gathered

from sgd_escape import storage

storage.write(gathered(snakemake.input.shards), snakemake.output[0], "first_passage")

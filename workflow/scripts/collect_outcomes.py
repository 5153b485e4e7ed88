from prologue import begin

begin(snakemake)

import csv
import io

from sgd_escape import storage
from sgd_escape.files import write_with_checksum
from sgd_escape.outcomes import MEANINGS, outcomes_of

table = io.StringIO()
writer = csv.writer(table, lineterminator="\n")
writer.writerow(["file", "outcome", "count", "meaning"])
for path in snakemake.input.files:
    for name, count in outcomes_of(storage.read(path, "fit")).items():
        writer.writerow([path, name, count, MEANINGS[name]])
write_with_checksum(snakemake.output[0], table.getvalue().encode())

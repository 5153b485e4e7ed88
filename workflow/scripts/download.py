from prologue import begin

begin(snakemake)

import xarray as xr

from sgd_escape import datasets, storage

name, data = snakemake.wildcards.data_set, snakemake.params.data
training_set = datasets.TRAINING_SETS[name]
images, labels = training_set(".cache/downloads", sources=data["sources"], folder=data["folder"])
storage.write(
    xr.Dataset(
        {
            "image": (("sample", "row", "column", "channel")[: images.ndim], images),
            "label": ("sample", labels),
        },
        attrs=storage.attributes({})
        | {"data_set": name, "title": "training set in its official order"},
    ),
    snakemake.output[0],
    "dataset" if images.ndim == 3 else "color_dataset",
)

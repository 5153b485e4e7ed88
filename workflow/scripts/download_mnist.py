from prologue import begin

begin(snakemake)

import xarray as xr

from sgd_escape import datasets, storage

data = snakemake.params.data
images, labels = datasets.mnist(".cache/downloads", sources=data["sources"], folder=data["folder"])
storage.write(
    xr.Dataset(
        {"image": (("sample", "row", "column"), images), "label": ("sample", labels)},
        attrs=storage.attributes({}) | {"title": "MNIST, training set in its official order"},
    ),
    snakemake.output[0],
    "dataset",
)

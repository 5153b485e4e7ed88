rule download_mnist:
    input:
        source=sources("download_mnist.py"),
    output:
        "results/data/mnist.nc",
    log:
        "results/logs/download_mnist.log",
    benchmark:
        "results/benchmarks/download_mnist.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=20,
    params:
        data=config["data"],
    script:
        "../scripts/download_mnist.py"

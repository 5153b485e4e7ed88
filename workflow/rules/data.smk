rule download_mnist:
    input:
        source=sources("download_mnist.py"),
    output:
        "results/data/mnist.nc",
    params:
        data=config["data"],
    log:
        "results/logs/download_mnist.log",
    benchmark:
        "results/benchmarks/download_mnist.tsv"
    conda:
        ENVIRONMENT
    retries: 2
    resources:
        mem_mb=1000,
        runtime=20,
    script:
        "../scripts/download_mnist.py"

rule download:
    input:
        source=sources("download.py"),
    output:
        "results/data/{data_set}.nc",
    log:
        "results/logs/download/{data_set}.log",
    benchmark:
        "results/benchmarks/download/{data_set}.tsv"
    wildcard_constraints:
        data_set="mnist|fashion_mnist|cifar10",
    # The longest jobs wait for it.
    priority: 40
    localrule: True
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1500),
        runtime=doubling(20),
    params:
        data=config["data"],
    script:
        "../scripts/download.py"

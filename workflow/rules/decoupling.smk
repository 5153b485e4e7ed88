DECOUPLING = config["decoupling"]


rule train_decoupling:
    input:
        data=MNIST,
        source=sources("train_decoupling.py"),
    output:
        expand("results/decoupling/network_epoch{epoch}.nc", epoch=DECOUPLING["epochs"]),
    log:
        "results/logs/train_decoupling.log",
    benchmark:
        "results/benchmarks/train_decoupling.tsv"
    priority: 10
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(20),
    params:
        study={
            key: DECOUPLING[key]
            for key in [
                "n_samples",
                "hidden_units",
                "seed",
                "learning_rate",
                "batch_size",
                "sampling",
                "epochs",
            ]
        },
    script:
        "../scripts/train_decoupling.py"


rule decoupling_spectrum:
    input:
        data=MNIST,
        network="results/decoupling/network_epoch{epoch}.nc",
        source=sources("decoupling_spectrum.py"),
    output:
        "results/decoupling/epoch{epoch}.nc",
    log:
        "results/logs/decoupling_spectrum/epoch{epoch}.log",
    benchmark:
        "results/benchmarks/decoupling_spectrum/epoch{epoch}.tsv"
    priority: 10
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        # Three matrices of N x N float64, and their eigenvalues in time N^3.
        mem_mb=doubling(800 + 36 * DECOUPLING["n_samples"] ** 2 // 10**6),
        runtime=doubling(20 + DECOUPLING["n_samples"] ** 3 // 10**11),
    params:
        seed=config["seed"],
        fits=config["fits"],
        study={
            key: DECOUPLING[key]
            for key in ["n_samples", "directions", "leading_fraction", "groups"]
        },
    script:
        "../scripts/decoupling_spectrum.py"

# Where a width of the exponent's interval is asked for: is it reached, after so many rounds of runs?
checkpoint assess_precision:
    input:
        shards=lambda wildcards: shards(
            f"results/{wildcards.study}",
            wildcards.case,
            config[wildcards.study]["first_passage"],
            int(wildcards.rounds),
        ),
        source=sources("assess_precision.py"),
    output:
        "results/{study}/precision/{case}_rounds{rounds}.json",
        "results/{study}/precision/{case}_rounds{rounds}.json.sha256",
    log:
        "results/logs/assess_precision/{study}/{case}_rounds{rounds}.log",
    benchmark:
        "results/benchmarks/assess_precision/{study}_{case}_rounds{rounds}.tsv"
    wildcard_constraints:
        study="linear_regression|network",
        case=r"first_passage_[\w.+-]+",
        rounds=r"\d+",
    localrule: True
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(10),
    params:
        seed=config["seed"],
        fits=config["fits"],
        study=lambda wildcards: precision(config[wildcards.study]["first_passage"])[
            "study"
        ],
    script:
        "../scripts/assess_precision.py"

# After everything that it tells the origin of, so that a later run with other versions shows.
rule provenance:
    input:
        results=[
            "results/claims.csv",
            *expand("results/figures/{figure}.png", figure=FIGURES),
        ],
        source=sources("provenance.py"),
    output:
        "results/provenance.json",
        "results/provenance.json.sha256",
    log:
        "results/logs/provenance.log",
    benchmark:
        "results/benchmarks/provenance.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    params:
        config=config,
    script:
        "../scripts/provenance.py"


rule claims:
    input:
        stationary="results/linear_regression/stationary.nc",
        fit_linear_regression="results/fits/linear_regression.nc",
        fit_network="results/fits/network.nc",
        fit_noise="results/fits/noise.nc",
        pretrained=expand(
            "results/network/pretrained_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        hessian=expand(
            "results/network/hessian_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        decoupling=expand(
            "results/decoupling/epoch{epoch}.nc", epoch=DECOUPLING["epochs"]
        ),
        alignment=expand(
            "results/noise/alignment_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        fit_collapse="results/fits/network_collapse.nc",
        escape=expand(
            "results/network/escape_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        laboratory=expand("results/laboratory/{study}.nc", study=LABORATORY),
        claims=str(ROOT / "workflow" / "claims.yaml"),
        paper=str(ROOT / "config" / "paper.yaml"),
        source=sources("claims.py"),
    output:
        report("results/claims.csv", caption="../report/claims.rst", category="Claims"),
        "results/claims.csv.sha256",
    log:
        "results/logs/claims.log",
    benchmark:
        "results/benchmarks/claims.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    params:
        config=config,
    script:
        "../scripts/claims.py"


# What is no error but changes what a number means: divergence, zero loss, dead units and the like.
rule collect_outcomes:
    input:
        files=lambda wildcards: [
            "results/linear_regression/stationary_samples.nc",
            *REGRESSION_PASSAGES,
            "results/fits/linear_regression.nc",
            *expand(
                "results/network/pretrained_seed{seed}.nc",
                seed=NETWORK["pretraining"]["seeds"],
            ),
            *sorted({*network_passages(), *COLLAPSE_PASSAGES}),
            *expand(
                [
                    "results/noise/alignment_seed{seed}.nc",
                    "results/network/escape_seed{seed}.nc",
                ],
                seed=NETWORK["pretraining"]["seeds"],
            ),
            "results/fits/network.nc",
            "results/fits/network_collapse.nc",
            *expand("results/decoupling/epoch{epoch}.nc", epoch=DECOUPLING["epochs"]),
            *expand(
                "results/noise/{architecture}_{loss}.nc",
                architecture=ARCHITECTURES,
                loss=LOSSES,
            ),
        ],
        source=sources("collect_outcomes.py"),
    output:
        report(
            "results/outcomes.csv",
            caption="../report/outcomes.rst",
            category="Outcomes",
        ),
        "results/outcomes.csv.sha256",
    log:
        "results/logs/collect_outcomes.log",
    benchmark:
        "results/benchmarks/collect_outcomes.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    script:
        "../scripts/collect_outcomes.py"


rule write_report:
    input:
        outcomes="results/outcomes.csv",
        outcomes_checksum="results/outcomes.csv.sha256",
        assessments=lambda wildcards: last_assessments(),
        figures=expand("results/figures/{figure}.png", figure=FIGURES),
        captions=expand(
            str(ROOT / "workflow" / "report" / "{figure}.rst"), figure=FIGURES
        ),
        claims="results/claims.csv",
        claims_checksum="results/claims.csv.sha256",
        fit_linear_regression="results/fits/linear_regression.nc",
        fit_network="results/fits/network.nc",
        hessian=expand(
            "results/network/hessian_seed{seed}.nc",
            seed=NETWORK["pretraining"]["seeds"],
        ),
        paper=str(ROOT / "config" / "paper.yaml"),
        template=str(ROOT / "workflow" / "report" / "report.html.jinja2"),
        provenance="results/provenance.json",
        provenance_checksum="results/provenance.json.sha256",
        source=sources("report.py"),
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    group:
        "closing"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=doubling(500),
        runtime=doubling(2),
    params:
        config=config,
        benchmarks="results/benchmarks",
    script:
        "../scripts/report.py"

"""Confidential containers on two groups of nodes of an existing cluster, and a workload."""

from pathlib import Path

import pulumi
import pulumi_contrast_runtime as contrast

config = pulumi.Config()
manifest = contrast.read_manifest(path=config.require("payload")).manifest

runtimes = [contrast.RuntimeArgs(platform="metal-qemu-snp", manifest=manifest)]
runtime = contrast.ContrastRuntime(
    "confidential",
    image=config.require("installerImage"),
    groups=[
        contrast.NodeGroupArgs(
            group="workers",
            distribution=contrast.DistributionArgs(name="containerd"),
            node_selector={"example.com/pool": "snp"},
            minimum_nodes=0,  # no node yet: leave it out where there are some
            runtimes=runtimes,
        ),
        contrast.NodeGroupArgs(
            group="edge",
            distribution=contrast.DistributionArgs(name="k3s"),
            node_selector={"example.com/pool": "edge"},
            minimum_nodes=0,
            runtimes=runtimes,
        ),
    ],
)

web = contrast.ConfidentialWorkload(
    "web",
    platform="metal-qemu-snp",
    manifest=manifest,
    # A pod template, with Kubernetes' own names. In a Deployment, the output `template` takes its place.
    template={
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "containers": [
                {
                    "name": "web",
                    "image": f"registry.example.com/web@sha256:{'a' * 64}",
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                }
            ]
        },
    },
    initdata=contrast.InitdataArgs(
        algorithm="sha256",
        data={"policy.rego": Path("policy.rego").read_text()},
    ),
)

# What pods set as runtimeClassName, by group.
pulumi.export("handlers", runtime.handlers)
pulumi.export("template", web.template)
# What a verifier will see of the workload's pods.
pulumi.export("initdata", web.initdata)
pulumi.export("reference", web.reference)

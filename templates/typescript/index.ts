import * as pulumi from "@pulumi/pulumi";
import { ContrastRuntime, readManifest } from "contrast-runtime";

const config = new pulumi.Config();

const runtime = new ContrastRuntime("confidential", {
  // The installer's image, by digest.
  image: config.require("installerImage"),
  groups: [
    {
      group: "workers",
      distribution: { name: "containerd" }, // how the nodes run containerd: also aks, k3s, rke2, k0s, microk8s
      nodeSelector: { "example.com/confidential": "true" }, // which nodes: label yours, or give nodeNames
      runtimes: [{ platform: "metal-qemu-snp", manifest: readManifest(config.require("payload")) }],
    },
  ],
});

/** What pods set as runtimeClassName, by group. */
export const handlers = runtime.handlers;
/** What verifiers will see of guests, by handler. */
export const referenceValues = runtime.referenceValues;

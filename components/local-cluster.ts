import { Command } from "@pulumi/command/local/command.js";
import * as pulumi from "@pulumi/pulumi";
import { localClusterCard } from "../runtime/cards.ts";
import { quote } from "../runtime/shell.ts";
import { checkArguments, localClusterArgs } from "./arguments.ts";

export interface LocalClusterArgs {
  /** Lower-case DNS label of at most 30 characters, usually the stack's. Everything on the machine is named after it. */
  name: string;
  /** One node, `node-1`, where none is listed. */
  nodes?: LocalClusterNode[];
}

export interface LocalClusterNode {
  /** Lower-case DNS label of at most 40 characters. */
  name: string;
  /** Minor version, such as "2.4" (the default) or "1.7". */
  containerd?: string;
  labels?: Record<string, string>;
}

/**
 * A real Kubernetes cluster on this machine, for trials and tests: a control plane, an image registry, and nodes that
 * are machines of their own (systemd, containerd, kubelet), in one network namespace. Needs root.
 */
export class LocalCluster extends pulumi.ComponentResource {
  /** The administrator's kubeconfig, a secret; its server answers inside the network namespace. */
  readonly kubeconfig: pulumi.Output<string>;
  /** host:port of the registry that the nodes pull from, plain HTTP, inside the network namespace. */
  readonly registry: pulumi.Output<string>;
  /** The file that `nsenter --net=` takes. */
  readonly networkNamespace: pulumi.Output<string>;
  /** References, by digest, of the images that the registry has from the start, by name: busybox, pause. */
  readonly images: pulumi.Output<Record<string, string>>;

  constructor(name: string, args: LocalClusterArgs, options?: pulumi.ComponentResourceOptions) {
    checkArguments(`LocalCluster ${name}`, localClusterArgs, args);
    super(localClusterCard.type, name, localClusterCard.build(args), options);
    const command = (verb: string) => `contrast-runtime local-cluster ${verb} --name ${quote(args.name)}`;
    const nodes = args.nodes?.length ? ` --nodes ${quote(JSON.stringify(args.nodes))}` : "";
    // The bin is called by name, and nothing here depends on this machine, so that previews are the same everywhere. No
    // triggers: they would replace the cluster, which destroys it. A command has no refresh: `npm start` repairs what died.
    const ensure = new Command(
      name,
      {
        create: command("ensure") + nodes,
        update: command("ensure") + nodes,
        delete: command("destroy"),
        logging: "stderr",
      },
      { parent: this, additionalSecretOutputs: ["stdout"] },
    );
    const result = pulumi.secret(ensure.stdout).apply(parseResult);
    this.kubeconfig = result.kubeconfig;
    this.registry = pulumi.unsecret(result.registry);
    this.networkNamespace = pulumi.unsecret(result.networkNamespace);
    this.images = pulumi.unsecret(result.images);
    this.registerOutputs({
      kubeconfig: this.kubeconfig,
      registry: this.registry,
      networkNamespace: this.networkNamespace,
      images: this.images,
    });
  }
}

interface EnsureResult {
  kubeconfig: string;
  registry: string;
  networkNamespace: string;
  images: Record<string, string>;
}

/** The command prints its result as the last line. */
function parseResult(stdout: string): EnsureResult {
  return JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
}

import { Command } from "@pulumi/command/local/command.js";
import * as pulumi from "@pulumi/pulumi";
import * as z from "zod";
import { localClusterCard } from "../runtime/cards.ts";
import { checkArguments, type Shape } from "./arguments.ts";
import { clusterOptions } from "./config/local-cluster.ts";
import { commandInterpreter, packageCommand } from "./package-command.ts";

/** Arguments of `LocalCluster`. */
export interface LocalClusterArgs {
  /**
   * Lower-case DNS label of at most 30 characters, usually the stack's. Plain, because everything on the machine is named
   * after it.
   *
   * @example pulumi.getStack()
   */
  name: string;
  /**
   * One to fifty nodes. Plain, because each is a machine.
   *
   * @default one node, `node-1`
   * @example [{ name: "old", containerd: "1.7" }, { name: "new" }]
   */
  nodes?: LocalClusterNode[] | undefined;
}

/** A node of a local cluster. */
export interface LocalClusterNode {
  /** Lower-case DNS label of at most 40 characters. */
  name: string;
  /**
   * Minor version of its containerd: 1.7, 2.0, 2.1, 2.2, 2.3 or 2.4.
   *
   * @default "2.4"
   */
  containerd?: string | undefined;
  /**
   * Labels of the node in the cluster, besides Kubernetes' own.
   *
   * @default none
   * @example { "example.com/pool": "snp" }
   */
  labels?: Record<string, string> | undefined;
}

const localClusterArgs = clusterOptions.extend({
  nodes: clusterOptions.shape.nodes.unwrap().optional(),
} satisfies Shape<Omit<LocalClusterArgs, "name">>);

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

  constructor(name: string, args: LocalClusterArgs, opts?: pulumi.ComponentResourceOptions) {
    checkArguments(`LocalCluster ${name}`, localClusterArgs, args);
    super(localClusterCard.type, name, localClusterCard.build(args), opts);
    const nodes = args.nodes?.length ? ["--nodes", JSON.stringify(args.nodes)] : [];
    const ensures = packageCommand("local-cluster ensure", "--name", args.name, ...nodes);
    // Nothing here depends on this machine, so that previews are the same everywhere. No
    // triggers: they would replace the cluster, which destroys it. A command has no refresh: `npm start` repairs what died.
    const ensure = new Command(
      name,
      {
        create: ensures,
        update: ensures,
        delete: packageCommand("local-cluster destroy", "--name", args.name),
        interpreter: commandInterpreter(),
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

const ensureResult = z.object({
  kubeconfig: z.string(),
  registry: z.string(),
  networkNamespace: z.string(),
  images: z.record(z.string(), z.string()),
});

/** The command prints its result as the last line. It is a secret: no message repeats it. */
function parseResult(stdout: string): z.output<typeof ensureResult> {
  const text = stdout.trimEnd();
  const { data } = ensureResult.safeParse(parsed(text.slice(text.lastIndexOf("\n") + 1)));
  if (data !== undefined) return data;
  throw new pulumi.RunError(
    "contrast-runtime local-cluster ensure did not end with what it made, a line of JSON with kubeconfig, registry, " +
      "networkNamespace and images. The package that Node finds from the program's directory must be the one that the program imports.",
  );
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

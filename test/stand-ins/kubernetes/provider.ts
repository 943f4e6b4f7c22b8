/**
 * Kubernetes objects through the API server; without a server, previews and rendered manifests.
 *
 * What the official plugin also says in the preview of a replacement is left out: "Retry #0; creation failed: … already
 * exists", or where existing objects are upserted, "retrying with name …". Those are pieces of information beside a resource
 * that is worked on, and nobody reads them: a review takes a preview's errors and warnings, and the plan is the same.
 */
import { randomBytes } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { type Checked, type Log, NotReady, type Provider } from "../plugin.ts";
import { containsSecret, containsUnknown, markSecrets, type Properties, revealed } from "../values.ts";
import { applyObject, creator } from "./apply.ts";
import { isAwaited, isDeletionAwaited, readiness, timeoutMs } from "./await.ts";
import { ApiError, Cluster, NoSuchKind, type Target } from "./cluster.ts";
import { diffObjects } from "./diff.ts";
import {
  annotationOf,
  apiVersionOf,
  checkpoint,
  hideSecretData,
  idOf,
  isProbablyNamespaced,
  kindOf,
  liveInputs,
  nameOf,
  namespaceOf,
  parseCheckpoint,
  parseId,
  typeParts,
  withMetadata,
  withName,
  withoutReadOnly,
} from "./objects.ts";
import { removeManifest, writeManifest } from "./render.ts";
import { checkSettings, diffSettings, readSettings, type Settings } from "./settings.ts";

type Request<Method extends keyof Provider> = Parameters<NonNullable<Provider[Method]>>[0];

export class KubernetesProvider implements Provider {
  private settings: Settings = readSettings({});
  private cluster: Cluster | undefined;
  private unreachable = "";

  checkConfig = checkSettings;
  diffConfig = diffSettings;

  async configure(variables: Record<string, string>): Promise<void> {
    this.settings = readSettings(variables);
    if (this.settings.renderYamlToDirectory) return;
    try {
      this.cluster = await Cluster.connect(this.settings);
    } catch (error) {
      this.unreachable = (error as Error).message;
    }
  }

  cancel(): void {
    this.cluster?.cancel();
  }

  async check({ type, name, news, olds, randomSeed }: Request<"check">): Promise<Checked> {
    if (!this.cluster && this.settings.skipUpdateUnreachable && !this.settings.renderYamlToDirectory)
      return { inputs: olds };
    if (/(Patch|List)$/.test(type)) throw new Error(`${type} is not a resource of this stand-in`);
    const { apiVersion, kind } = typeParts(type);
    let inputs = withoutReadOnly({ apiVersion, kind, ...revealed(news) });
    inputs = withName(inputs, revealed(olds), name, randomSeed.length > 0 ? randomSeed : randomBytes(8));
    const namespace = this.settings.namespace ?? this.cluster?.defaultNamespace;
    if (namespace && !namespaceOf(inputs) && (await this.isNamespaced(inputs)))
      inputs = withMetadata(inputs, { namespace });
    return { inputs: hideSecretData(markSecrets(inputs, news)) };
  }

  async diff({ state, inputs: marked }: Request<"diff">) {
    const inputs = revealed(marked);
    const { inputs: oldInputs, live } = parseCheckpoint(state);
    return diffObjects({ oldInputs, live, inputs }, { ...this.settings, namespaced: await this.isNamespaced(inputs) });
  }

  async create({ inputs: marked, preview, timeout, log }: Request<"create">) {
    const inputs = revealed(marked);
    if (preview) return { id: "", state: (await this.previewCreate(inputs, marked)) ?? marked };
    const manager = this.fieldManager(inputs, undefined);
    if (this.settings.renderYamlToDirectory)
      return { id: idOf(inputs), state: checkpoint(marked, await this.render(inputs, marked, log), manager) };
    const cluster = this.reachable();
    const { upsertExistingObjects, serverSideApply } = this.settings;
    const created = await (upsertExistingObjects && serverSideApply
      ? cluster.patch(
          targetOf(inputs),
          nameOf(inputs),
          "application/apply-patch+yaml",
          inputs,
          this.query(inputs, manager),
        )
      : retried(() => cluster.create(targetOf(inputs), inputs, { fieldManager: creator }))
    ).catch((error: Error) => {
      const advice = error instanceof NoSuchKind ? ". Verify that any required CRDs have been created" : "";
      throw new Error(
        `resource ${idOf(inputs)} was not successfully created by the Kubernetes API server: ${error.message}${advice}`,
      );
    });
    const live = await this.untilReady(created, inputs, marked, manager, timeout, log);
    return { id: idOf(live), state: checkpoint(marked, live, manager) };
  }

  async read({ id, type, state, inputs: marked, log }: Request<"read">) {
    const { skipUpdateUnreachable, deleteUnreachable, renderYamlToDirectory } = this.settings;
    if (renderYamlToDirectory) return { id, state, inputs: marked };
    if (!this.cluster) {
      log.warn(`configured Kubernetes cluster is unreachable: ${this.unreachable}`);
      if (deleteUnreachable) return undefined;
      if (skipUpdateUnreachable) return { id, state, inputs: marked };
      throw new Error(
        'failed to read resource state due to unreachable cluster. If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation with the PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"',
      );
    }
    const { namespace, name } = parseId(id);
    const inputs = revealed(marked);
    const { fieldManager } = parseCheckpoint(state);
    try {
      const live = await this.cluster.get({ ...typeParts(type), namespace }, name);
      const isImport = apiVersionOf(inputs) === "";
      const { status: _, ...wanted } = withoutReadOnly(live);
      const found = markSecrets(isImport ? wanted : liveInputs(live, inputs), marked);
      const manager = fieldManager || this.fieldManager(live, undefined);
      return { id, inputs: hideSecretData(found), state: checkpoint(found, live, manager) };
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  async update({ state, inputs: marked, preview, timeout, log }: Request<"update">) {
    const inputs = revealed(marked);
    const { inputs: oldInputs, live: oldLive, fieldManager } = parseCheckpoint(state);
    const manager = this.fieldManager(inputs, fieldManager);
    if (preview) return (await this.previewUpdate(inputs, oldInputs, marked, manager)) ?? marked;
    if (this.settings.renderYamlToDirectory) {
      await this.render(inputs, marked, log);
      return checkpoint(marked, { ...oldLive, ...inputs }, manager);
    }
    const options = this.applyOptions(inputs, manager);
    const updated = await applyObject(this.reachable(), targetOf(inputs), inputs, oldInputs, options).catch(
      // The engine keeps the new inputs, so that its next preview shows an update without a difference.
      ({ message }: Error) => {
        throw new NotReady(message, idOf(oldLive), checkpoint(marked, oldLive, manager), marked);
      },
    );
    return checkpoint(marked, await this.untilReady(updated, inputs, marked, manager, timeout, log), manager);
  }

  async delete({ id, type, state, timeout, log }: Request<"delete">): Promise<void> {
    const { inputs, live } = parseCheckpoint(state);
    if (this.settings.renderYamlToDirectory) return await removeManifest(this.settings.renderYamlToDirectory, inputs);
    if (!this.cluster && this.settings.deleteUnreachable)
      return log.warn(`configured Kubernetes cluster is unreachable: ${this.unreachable}`);
    const { namespace, name } = parseId(id);
    const target = { ...typeParts(type), namespace };
    const policies: Record<string, string> = { orphan: "Orphan", background: "Background" };
    const propagationPolicy = policies[annotationOf(live, "deletionPropagationPolicy").toLowerCase()] ?? "Foreground";
    try {
      await this.reachable().delete(target, name, { kind: "DeleteOptions", apiVersion: "v1", propagationPolicy });
      if (!isDeletionAwaited(live)) return;
      const limit = timeoutMs(timeout, live);
      const isDeleted = await this.reachable().watch(target, name, limit, (object) => {
        if (object && uidOf(object) === uidOf(live)) log.status("waiting for the object to be deleted");
        // Another object with the same name may already exist.
        return !object || (uidOf(live) !== undefined && uidOf(object) !== uidOf(live));
      });
      if (!isDeleted) throw new Error(`'${name}' was not deleted within ${limit / 1000} seconds`);
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }

  /** The server's answer to a dry run, or undefined if it cannot tell. */
  private async previewCreate(inputs: Properties, marked: Properties): Promise<Properties | undefined> {
    if (!this.cluster || !this.settings.serverSideApply || containsUnknown(inputs)) return undefined;
    const manager = this.fieldManager(inputs, undefined);
    try {
      const query = { fieldManager: creator, dryRun: "All" };
      const { status: _, ...live } = await this.cluster.create(targetOf(inputs), inputs, query);
      return checkpoint(marked, live, manager);
    } catch (error) {
      if (isUndecided(error)) return undefined;
      throw error;
    }
  }

  private async previewUpdate(
    inputs: Properties,
    oldInputs: Properties,
    marked: Properties,
    manager: string,
  ): Promise<Properties | undefined> {
    if (!this.cluster || containsUnknown(inputs)) return undefined;
    try {
      const options = { ...this.applyOptions(inputs, manager), dryRun: true };
      const live = await applyObject(this.cluster, targetOf(inputs), inputs, oldInputs, options);
      return checkpoint(marked, live, manager);
    } catch (error) {
      if (isUndecided(error)) return undefined;
      throw error;
    }
  }

  private async render(inputs: Properties, marked: Properties, log: Log): Promise<Properties> {
    const path = await writeManifest(this.settings.renderYamlToDirectory ?? "", inputs);
    if (containsSecret(marked)) log.warn(`rendered file ${path} contains a secret value in plaintext`);
    log.status(`rendered ${path}`);
    return inputs;
  }

  /** @throws NotReady, so that the engine keeps what was created */
  private async untilReady(
    object: Properties,
    inputs: Properties,
    marked: Properties,
    manager: string,
    seconds: number,
    log: Log,
  ): Promise<Properties> {
    if (!isAwaited(object)) return object;
    const name = nameOf(object);
    let live = object;
    let failure: string | undefined;
    const limit = timeoutMs(seconds, inputs);
    const isReady = await this.reachable().watch({ ...targetOf(object) }, name, limit, (seen) => {
      if (!seen) {
        failure = "the object was deleted";
        return true;
      }
      live = seen;
      const state = readiness(seen);
      if (state.ready) return true;
      log.status(state.reason);
      if (state.failed) failure = state.reason;
      return state.failed === true;
    });
    if (isReady && failure === undefined) return live;
    const state = readiness(live);
    const last = state.ready ? "" : `: ${state.reason}`;
    const reason = failure ?? `'${name}' timed out waiting to be Ready${last}`;
    throw new NotReady(
      `resource ${idOf(live)} was successfully created, but the Kubernetes API server reported that it failed to fully initialize or become live: ${reason}`,
      idOf(live),
      checkpoint(marked, live, manager),
      marked,
    );
  }

  private reachable(): Cluster {
    if (this.cluster) return this.cluster;
    throw new Error(`configured Kubernetes cluster is unreachable: ${this.unreachable}`);
  }

  private async isNamespaced(object: Properties): Promise<boolean> {
    if (!this.cluster) return isProbablyNamespaced(kindOf(object));
    const resource = await this.cluster.resource(targetOf(object)).catch((error: unknown) => {
      if (error instanceof NoSuchKind) return { namespaced: true };
      throw error;
    });
    return resource.namespaced;
  }

  private fieldManager(object: Properties, recorded: string | undefined): string {
    if (!this.settings.serverSideApply) return "pulumi-kubernetes";
    return (
      annotationOf(object, "patchFieldManager") || recorded || `pulumi-kubernetes-${randomBytes(4).toString("hex")}`
    );
  }

  private applyOptions(inputs: Properties, manager: string) {
    const force = this.settings.patchForce || annotationOf(inputs, "patchForce") === "true";
    return { manager, force, serverSide: this.settings.serverSideApply, dryRun: false };
  }

  private query(inputs: Properties, manager: string): Record<string, string> {
    return { fieldManager: manager, force: `${this.applyOptions(inputs, manager).force}` };
  }
}

/** As often as the official plugin tries while the object's namespace is still to come. */
async function retried<T>(action: () => Promise<T>, attempts = 5): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (attempts === 1 || !(error instanceof ApiError && error.code === 404)) throw error;
    await delay(1_000);
    return await retried(action, attempts - 1);
  }
}

const targetOf = (object: Properties): Target => ({
  apiVersion: apiVersionOf(object),
  kind: kindOf(object),
  namespace: namespaceOf(object),
});

const uidOf = (object: Properties) => (object.metadata as Properties | undefined)?.uid;

const isGone = (error: unknown): boolean =>
  error instanceof NoSuchKind || (error instanceof ApiError && error.code === 404);

/** A dry run cannot decide: no permission, an object that is about to be replaced, or a namespace or kind yet to come. */
const isUndecided = (error: unknown): boolean =>
  isGone(error) || (error instanceof ApiError && (error.code === 403 || error.reason === "AlreadyExists"));

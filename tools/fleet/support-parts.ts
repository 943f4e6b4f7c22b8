/**
 * What a bug report may hold: of each kind of object the fields that are named here, and nothing else. `docs/support.md`
 * says the same in words.
 */
import * as z from "zod";
import { ownKey } from "../../runtime/names.ts";

/** Text of programs and people, without what looks like a secret; a last line of defence, for none is expected. */
export const scrubbed = (text: string): string =>
  text
    .replaceAll(/(\w+:\/\/)[^\s/@"']+@/g, "$1REDACTED@")
    .replaceAll(/\b(bearer|basic)\s+[\w.~+/=-]{8,}/gi, "$1 REDACTED")
    .replaceAll(/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(-----END [A-Z ]*PRIVATE KEY-----|$)/g, "REDACTED")
    .replaceAll(/\beyJ[\w-]+\.[\w-]+\.[\w-]*/g, "REDACTED")
    .replaceAll(
      /\b((?:pass(?:word|wd|phrase)?|secret|token|api[_-]?key)["']?\s*[:=]\s*["']?)[^\s"',;&]+/gi,
      "$1REDACTED",
    );

const text = z.string().transform(scrubbed);
const count = z.number();
const time = z.string();
const name = z.string();
const condition = z.object({
  type: name,
  status: name,
  reason: text.optional(),
  message: text.optional(),
  lastTransitionTime: time.nullish(),
});
const owner = z.object({ kind: name, name });
/** Labels and annotations of this product alone. */
const own = z.record(z.string(), z.string()).transform((all) =>
  Object.fromEntries(
    Object.entries(all)
      .filter(([key]) => isOwn(key))
      .map(([key, value]) => [key, scrubbed(value)]),
  ),
);
const domain = ownKey("");
const isOwn = (key: string): boolean => key.slice(0, key.indexOf("/") + 1).endsWith(domain);
const metadata = z.object({
  name,
  creationTimestamp: time.nullish(),
  deletionTimestamp: time.nullish(),
  generation: count.optional(),
  labels: own.optional(),
  annotations: own.optional(),
  ownerReferences: z.array(owner).optional(),
});

export const nodePart = z.object({
  metadata,
  spec: z
    .object({
      unschedulable: z.boolean().optional(),
      taints: z.array(z.object({ key: name, effect: name })).optional(),
    })
    .default({}),
  status: z
    .object({
      conditions: z.array(condition).optional(),
      nodeInfo: z
        .object({
          architecture: name,
          operatingSystem: name,
          osImage: name,
          kernelVersion: name,
          kubeletVersion: name,
          containerRuntimeVersion: name,
        })
        .optional(),
      runtimeHandlers: z.array(z.object({ name: name.optional() })).nullish(),
    })
    .default({}),
});

const stopped = z.object({
  reason: name.optional(),
  message: text.optional(),
  exitCode: count.optional(),
  signal: count.optional(),
  startedAt: time.nullish(),
  finishedAt: time.nullish(),
});
const containerState = z.object({
  running: z.object({ startedAt: time.nullish() }).optional(),
  waiting: stopped.optional(),
  terminated: stopped.optional(),
});

export const podPart = z.object({
  metadata,
  spec: z.object({ nodeName: name.optional(), priorityClassName: name.optional() }),
  status: z
    .object({
      phase: name.optional(),
      reason: name.optional(),
      message: text.optional(),
      conditions: z.array(condition).optional(),
      containerStatuses: z
        .array(
          z.object({
            name,
            ready: z.boolean(),
            restartCount: count,
            image: text.optional(),
            imageID: text.optional(),
            state: containerState.optional(),
            lastState: containerState.optional(),
          }),
        )
        .optional(),
    })
    .default({}),
});

export const daemonSetPart = z.object({
  metadata,
  spec: z.object({
    updateStrategy: z
      .object({
        type: name.optional(),
        rollingUpdate: z.object({ maxUnavailable: z.union([name, count]).optional() }).optional(),
      })
      .optional(),
    template: z.object({
      spec: z.object({
        nodeSelector: z.record(z.string(), z.string()).optional(),
        tolerations: z
          .array(z.object({ key: name.optional(), operator: name.optional(), effect: name.optional() }))
          .optional(),
        priorityClassName: name.optional(),
        containers: z.array(
          z.object({
            name,
            image: text.optional(),
            resources: z.record(z.string(), z.record(z.string(), z.string())).optional(),
          }),
        ),
        volumes: z.array(z.object({ name, configMap: z.object({ name }).optional() })).optional(),
      }),
    }),
  }),
  status: z
    .record(z.string(), z.unknown())
    .transform((all) => Object.fromEntries(Object.entries(all).filter(([, value]) => typeof value === "number"))),
});

export const leasePart = z.object({
  metadata,
  spec: z.object({ holderIdentity: name.optional(), acquireTime: time.nullish() }).optional(),
});

export const eventPart = z.object({
  involvedObject: z.object({ kind: name.optional(), name: name.optional() }),
  type: name.optional(),
  reason: name.optional(),
  message: text.optional(),
  count: count.nullish(),
  firstTimestamp: time.nullish(),
  lastTimestamp: time.nullish(),
  source: z.object({ component: name.optional() }).optional(),
});

export const classPart = z.object({
  metadata,
  handler: name,
  scheduling: z.object({ nodeSelector: z.record(z.string(), z.string()).optional() }).optional(),
  overhead: z.object({ podFixed: z.record(z.string(), z.string()).optional() }).optional(),
});

/** An install spec; the files' digests name the payload. */
export const specPart = z.object({
  schemaVersion: count.optional(),
  group: name.optional(),
  formerly: name.optional(),
  distribution: z
    .object({
      name,
      configPath: name.optional(),
      socket: name.optional(),
      unit: name.optional(),
      containerdVersion: name.optional(),
    })
    .optional(),
  atOnce: count.optional(),
  verifySandbox: z.boolean().optional(),
  loadPendingChanges: z.boolean().optional(),
  startupTaint: name.optional(),
  runtimes: z.array(
    z.object({
      handler: name,
      platform: name.optional(),
      payload: name.optional(),
      files: z.array(z.object({ path: name, size: count.optional(), sha256: name })).optional(),
      kataConfig: z.object({ path: name, content: text }).optional(),
      containerd: z.object({ runtimeType: name.optional(), snapshotter: name.optional() }).optional(),
    }),
  ),
});

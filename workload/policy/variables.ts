/**
 * A value as the policy knows it: a text, or a pattern for what is only known when the pod runs. The pattern is anchored;
 * {pod} and {uid} in it stand for the pod's name and UID, which are the same in all its containers.
 */
export type Pinned = string | { like: string };

/** A value of several parts, before it is either a text or a pattern. */
type Part = string | { like: string };

export const literally = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");

const source = (part: Part): string => (typeof part === "string" ? literally(part) : part.like.slice(1, -1));

function joined(parts: Part[]): Pinned {
  if (parts.every((part) => typeof part === "string")) return parts.join("");
  return { like: `^${parts.map(source).join("")}$` };
}

const port = "[0-9]{1,5}";
const address = "([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9a-f:]{2,39})";

/** A service's variable, if there is such a service: its address or port; else the text stays as it is. */
function ofService(name: string): { like: string } | undefined {
  const [, kind] = /^[A-Z][A-Z0-9_]*_SERVICE_(HOST|PORT)(?:_[A-Z0-9_]+)?$/.exec(name) ?? [];
  if (kind === undefined) return undefined;
  return { like: `^(${kind === "HOST" ? address : port}|${literally(`$(${name})`)})$` };
}

/**
 * What kubelet makes of `$(NAME)` in values and arguments (k8s.io/kubernetes/third_party/forked/golang/expansion): the
 * variable's value; the text itself for an unknown one; `$$` is one dollar.
 */
export function expand(text: string, variables: ReadonlyMap<string, Pinned>): Pinned {
  const parts: Part[] = [];
  let rest = text;
  for (let at = rest.indexOf("$"); at !== -1; at = rest.indexOf("$")) {
    parts.push(rest.slice(0, at));
    rest = rest.slice(at + 1);
    const closing = rest.indexOf(")");
    if (rest.startsWith("$")) {
      parts.push("$");
      rest = rest.slice(1);
    } else if (rest.startsWith("(") && closing !== -1) {
      const name = rest.slice(1, closing);
      parts.push(variables.get(name) ?? ofService(name) ?? `$(${name})`);
      rest = rest.slice(closing + 1);
    } else {
      parts.push("$");
    }
  }
  return joined([...parts, rest]);
}

/** `fieldRef` values that only the node knows; the pod's name and UID are those that the sandbox has. */
export const runtimeFields: Readonly<Record<string, { like: string }>> = {
  "metadata.name": { like: "^{pod}$" },
  "metadata.uid": { like: "^{uid}$" },
  "spec.nodeName": { like: "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$" },
  "status.podIP": { like: `^${address}$` },
  "status.podIPs": { like: `^${address}(,${address})?$` },
  "status.hostIP": { like: `^${address}$` },
  "status.hostIPs": { like: `^${address}(,${address})?$` },
};

/**
 * What kubelet and controllers add to a container's variables, as a pattern for lines of NAME=value: the services of the
 * namespace, whose addresses are not known, with bounded names and values.
 *
 * @param links also those of the pod's namespace, not only the API server's
 * @param more further lines, as patterns
 */
export function furtherVariables(links: boolean, more: string[]): string {
  const service = links ? "[A-Z][A-Z0-9_]*" : "KUBERNETES";
  const url = `(tcp|udp|sctp)://(${address}|\\[[0-9a-f:]{2,39}\\]):${port}`;
  const protocol = `_PORT_${port}_(TCP|UDP|SCTP)`;
  const ends = [
    `_SERVICE_HOST=${address}`,
    `_SERVICE_PORT(_[A-Z0-9_]+)?=${port}`,
    `(_PORT|${protocol})=${url}`,
    `${protocol}_PROTO=(tcp|udp|sctp)`,
    `${protocol}_PORT=${port}`,
    `${protocol}_ADDR=${address}`,
  ];
  return `^((${[`${service}(${ends.join("|")})`, ...more].join("|")})\n)*$`;
}

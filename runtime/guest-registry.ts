import { Refusal } from "./refusal.ts";
import { tomlString } from "./toml.ts";

/**
 * From where guests that pull images themselves get them, and how. One setting for both kinds of guest: Contrast's image
 * puller reads a file of the node (nothing in it is measured, and the host can read it); upstream's Confidential Data Hub
 * reads `cdh.toml` in a pod's initdata (measured as HOSTDATA or MRCONFIGID, and the host can read it).
 */
export interface GuestRegistry {
  proxy?: { https?: string | undefined; http?: string | undefined; noProxy?: string | undefined } | undefined;
  /** By the registry's host, as images name it. */
  registries?: Record<string, RegistryAccess> | undefined;
  /** Content of a .dockerconfigjson: for Contrast's guests. A secret. */
  credentials?: string | undefined;
  /** `kbs:///<repository>/<type>/<tag>` of such a file at the key broker: for upstream's guests. */
  credentialsUri?: string | undefined;
}

interface RegistryAccess {
  /** Certificates of its authorities, PEM. */
  ca?: string | undefined;
  /** host[:port] from which its images are taken. */
  mirror?: string | undefined;
}

/** Where Kata finds Contrast's file, below the handler's directory; where the installer's pod has it. */
export const imagePullerPath = "etc/host-config/contrast-imagepuller.toml";
export const imagePullerKey = "contrast-imagepuller.toml";

/**
 * The file of Contrast's image puller. Sources: its imagepuller/internal/auth/auth.go, and its page on registry
 * authentication. Names of registries are fully qualified there, with a dot at the end.
 *
 * @throws Refusal for credentials of something that is no registry's host
 */
export function imagePullerConfiguration({ proxy, registries = {}, credentials }: GuestRegistry): string {
  const auths = credentials === undefined ? {} : authsOf(credentials);
  const environment = table("extra-env", {
    HTTPS_PROXY: proxy?.https,
    HTTP_PROXY: proxy?.http,
    NO_PROXY: proxy?.noProxy,
  });
  const hosts = [...new Set([...Object.keys(registries), ...Object.keys(auths)])].sort();
  const tables = hosts.map((host) => {
    const { ca, mirror } = registries[host] ?? {};
    return table(`registries.${tomlString(`${pullersName(host)}.`)}`, {
      auth: auths[host],
      "ca-certs": ca,
      mirror: mirror && `https://${mirror}`,
    });
  });
  return [environment, ...tables].filter((text) => text !== "").join("\n");
}

/** As the puller's library calls Docker's own registry. */
const pullersName = (host: string): string => (host === "docker.io" ? "index.docker.io" : host);

function table(heading: string, values: Record<string, string | undefined>): string {
  const lines = Object.entries(values).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key} = ${tomlString(value)}\n`],
  );
  return lines.length === 0 ? "" : `[${heading}]\n${lines.join("")}`;
}

/** Base64 of "user:password", by host. What is wrong is said without a word of what is in it. */
function authsOf(credentials: string): Record<string, string> {
  const document: unknown = JSON.parse(credentials);
  const auths: unknown = record(document).auths;
  return Object.fromEntries(
    Object.entries(record(auths)).map(([name, entry]) => {
      const host = name.replace(/^https?:\/\//, "").replace(/\/v[12]\/?$/, "");
      if (!isPlainHost(host))
        throw new Refusal(
          "guest-registry",
          `registry.guest.credentials has a login for "${name}", but Contrast's guests know registries by their host alone: expected a name such as registry.example.com, without port or path.`,
        );
      const { auth, username, password } = record(entry);
      const login =
        typeof auth === "string" && auth !== ""
          ? auth
          : typeof username === "string" && typeof password === "string"
            ? Buffer.from(`${username}:${password}`).toString("base64")
            : undefined;
      if (login === undefined)
        throw new Refusal(
          "guest-registry",
          `registry.guest.credentials has no user name and password for "${name}": guests cannot use tokens or credential helpers of another machine.`,
        );
      return [host === "index.docker.io" ? "docker.io" : host, login];
    }),
  );
}

const record = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};

const isPlainHost = (host: string): boolean => /^[a-z0-9-]+(\.[a-z0-9-]+)+$/.test(host) && !/^[\d.]+$/.test(host);

/** What Contrast's image puller cannot do of it: by path below the setting, words that go on after the name. */
export function problemsForContrast({ registries = {}, credentialsUri }: GuestRegistry): Record<string, string> {
  const ports = Object.keys(registries).filter((host) => !isPlainHost(host));
  return {
    ...Object.fromEntries(
      ports.map((host) => [
        `registries.${host}`,
        "has a port or is an address: Contrast's guests know registries by their host's name alone. Give it a name with the default port",
      ]),
    ),
    ...(credentialsUri !== undefined && {
      credentialsUri:
        "is for guests of upstream Kata: Contrast's ask no key broker for logins. Set registry.guest.credentials for them",
    }),
  };
}

/**
 * The part `[image]` of `cdh.toml`. Source: guest-components, confidential-data-hub/hub/src/config.rs and image-rs.
 *
 * @param furtherCertificates authorities of any registry, PEM
 */
export function cdhImage(
  { proxy, registries = {}, credentialsUri }: GuestRegistry,
  furtherCertificates: readonly string[] = [],
): string {
  const hosts = Object.keys(registries).sort();
  const authorities = [...furtherCertificates, ...hosts.flatMap((host) => registries[host]?.ca ?? [])];
  const image = [
    ...(credentialsUri === undefined
      ? []
      : [`authenticated_registry_credentials_uri = ${tomlString(credentialsUri)}\n`]),
    ...(authorities.length === 0
      ? []
      : [`extra_root_certificates = [${[...new Set(authorities)].map(tomlString).join(", ")}]\n`]),
  ];
  const mirrors = hosts.flatMap((host) => {
    const mirror = registries[host]?.mirror;
    return mirror === undefined ? [] : [{ host, mirror }];
  });
  return [
    ...(image.length === 0 ? [] : [`[image]\n${image.join("")}`]),
    ...(mirrors.length === 0
      ? []
      : [
          `[image.registry_config]\nunqualified-search-registries = ["docker.io"]\n`,
          ...mirrors.map(
            ({ host, mirror }) =>
              `[[image.registry_config.registry]]\nprefix = ${tomlString(host)}\nlocation = ${tomlString(host)}\ninsecure = false\nblocked = false\n` +
              `\n[[image.registry_config.registry.mirror]]\nlocation = ${tomlString(mirror)}\n`,
          ),
        ]),
    table("image.image_pull_proxy", {
      https_proxy: proxy?.https,
      http_proxy: proxy?.http,
      no_proxy: proxy?.noProxy,
    }),
  ]
    .filter((text) => text !== "")
    .join("\n");
}

/** What containerd was asked for and wrote, of the pods in test/fixtures/policy, and the requests that come of it. */
export interface Captured {
  pod: { name: string; uid: string; ip: string };
  containers: { id: string; spec: OciSpec }[];
  sources: Record<string, Source>;
}
export interface Source {
  fileSystem: string;
  files: { kind: string; path: string; mode: string; uid: number; gid: number; target?: string }[];
}
export interface OciSpec {
  ociVersion: string;
  hostname?: string;
  process: {
    terminal?: boolean;
    user: { uid: number; gid: number; additionalGids?: number[] };
    args: string[];
    env: string[];
    cwd: string;
    capabilities?: Record<string, string[]>;
    noNewPrivileges?: boolean;
    apparmorProfile?: string;
    oomScoreAdj?: number;
  };
  root: { readonly?: boolean };
  mounts: { destination: string; type: string; source: string; options: string[] }[];
  annotations: Record<string, string>;
  linux: {
    sysctl?: Record<string, string>;
    cgroupsPath: string;
    namespaces: { type: string; path?: string }[];
    maskedPaths: string[];
    readonlyPaths: string[];
    devices?: {
      path: string;
      type: string;
      major: number;
      minor: number;
      fileMode: number;
      uid: number;
      gid: number;
    }[];
    resources: {
      cpu?: { shares?: number; quota?: number; period?: number };
      memory?: { limit?: number; swap?: number };
    };
  };
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export interface KataRequest {
  kind: string;
  input: { [key: string]: Json };
}

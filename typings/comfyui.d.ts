// What web/*.js uses of ComfyUI's front end.

interface Widget {
  name: string;
  value: unknown;
  serialize?: boolean;
}

interface Link {
  target_id: number;
}

interface Graph {
  id: string;
  links: Record<number, Link> & { get?(id: number): Link | undefined }; // a Map in newer front ends
  getNodeById(id: number): GraphNode | null;
  setDirtyCanvas(foreground: boolean, background: boolean): void;
}

interface GraphNode {
  constructor: { nodeData?: { input: { required: Record<string, [unknown, Record<string, any>]> } } };
  type: string;
  comfyClass: string;
  title: string;
  size: [number, number];
  graph: Graph | null;
  subgraph?: Graph;
  widgets?: Widget[];
  outputs?: { type: string; links: number[] | null }[];
  hideOutputImages?: boolean;
  addDOMWidget(
    name: string, type: string, element: HTMLElement,
    options: { serialize: boolean; hideOnZoom: boolean; getMinHeight(): number },
  ): Widget;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  getInputNode?(slot: number): GraphNode | null;
  findInputSlot(name: string): number;
  onDragOver?(event: DragEvent): boolean;
  onDragDrop?(event: DragEvent): Promise<boolean>;
}

interface SidebarTab {
  id: string;
  icon: string;
  title: string;
  label: string;
  tooltip: string;
  type: "custom";
  iconBadge?: string;
  render(parent: HTMLElement): void;
}

interface App {
  graph: Graph;
  rootGraph?: Graph; // newer front ends
  reloadNodeDefs?(): Promise<void>; // newer front ends
  refreshComboInNodes(): Promise<void>;
  registerExtension(extension: {
    name: string;
    settings: { id: string; category: string[]; name: string; tooltip: string; type: "boolean"; defaultValue: boolean }[];
    init(): Promise<void>;
    setup(): Promise<void>;
    nodeCreated(node: GraphNode): void;
    afterConfigureGraph(): void;
  }): void;
  extensionManager: {
    setting: { get(id: string): unknown };
    toast: { add(message: { severity: string; summary: string; detail: string; life: number }): void };
    getSidebarTabs(): SidebarTab[];
    registerSidebarTab(tab: SidebarTab): void;
  };
}

interface Api {
  fetchApi(path: string, options?: RequestInit): Promise<Response>;
  apiURL(path: string): string;
  interrupt(prompt: string | null): Promise<void>;
  addEventListener(event: string, act: (event: CustomEvent) => void): void;
}

declare module "*/scripts/app.js" {
  export const app: App;
}

declare module "*/scripts/api.js" {
  export const api: Api;
}

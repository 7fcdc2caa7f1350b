// Functions of the page for the tab's events: following a training, the clicked row, and the values of the txt2img tab.

/** @type {string} the job that the page asks about */
let ti_train_followed = "";

/** @param {string} id */
function ti_train_click(id) {
    gradioApp().getElementById(id)?.click();
}

/**
 * Runs after the handlers that show a job: asks about it until it has ended, and shows the WebUI's progress bar.
 * gradio 3 never ends the tasks of handlers that wait, and then "Reload UI" waits for them: so the page asks again.
 * @param {string} id empty if the job has ended
 */
function ti_train_follow(id) {
    if (!id || id === ti_train_followed) return [];
    ti_train_followed = id;
    let questions = Infinity;
    const place = gradioApp().getElementById("ti_train_progress");
    requestProgress(id, place, null, () => { questions = 5; }, () => {}); // the host ends its task before the job
    function ask() {
        if (id !== ti_train_followed) return;
        ti_train_click("ti_train_look");
        if (gradioApp().querySelector("#ti_train_summary .ti-train-unfinished") && questions-- > 0) setTimeout(ask, 1000);
        else ti_train_followed = "";
    }
    setTimeout(ask, 300); // the page shows what the handler returned
    return []; // gradio expects the outputs' values
}

/**
 * Runs after the handler that starts the captioning: shows its progress, and what it wrote at its end.
 * @param {string} id empty if it did not start
 */
function ti_train_follow_captions(id) {
    const place = gradioApp().getElementById("ti_train_captions_written");
    if (id) requestProgress(id, place, null, () => ti_train_click("ti_train_captioned"), () => {});
    return [];
}

/** Runs before the handler of a clicked row; returns its file. */
function ti_train_clicked_file() {
    return [ti_train_file];
}

/** @type {string} */
let ti_train_file = "";

/** @param {HTMLElement} row of the table of embeddings */
function ti_train_choose(row) {
    ti_train_file = row.dataset.file ?? "";
    ti_train_click("ti_train_choose");
}

/**
 * Runs before the handler of "From txt2img"; returns its inputs: the embedding's name, the steps between previews, that tab's values.
 * @param {string} name
 * @param {number} every
 */
function ti_train_of_txt2img(name, every) {
    /** @param {string} id */
    function value(id) {
        const field = gradioApp().querySelector(`#txt2img_${id} textarea, #txt2img_${id} input`);
        return /** @type {HTMLInputElement} */ (field).value;
    }
    const [seed, ...numbers] = ["seed", "steps", "cfg_scale", "width", "height"].map((id) => Number(value(id)));
    return [name, every, value("prompt"), value("neg_prompt"), seed, value("sampling"), ...numbers];
}

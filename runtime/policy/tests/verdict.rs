//! Verdicts and defaults on the line-up of machines.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod common;

use common::{gemma3_12b, llama_1b, llama_3b_q4, llama_70b, qwen_7b, qwen_14b, qwen_32b};
use locara_policy::{
    Bytes, Device, Fit, KvType, Machine, ModelShape, Plan, PlanRequest, defaults, judge, plan, verdict,
    verdict::{WayOut, suited_to},
};

fn mac(name: &str) -> Machine {
    Machine::named(name).unwrap()
}

/// A model as the machine's own defaults would hold it.
fn resident(shape: &ModelShape, machine: &Machine) -> Plan {
    plan(shape, &defaults(machine, Some(shape)).request()).unwrap()
}

#[test]
fn two_models_fit_36_gb_and_not_16() {
    let (seven, fourteen) = (qwen_7b(6_254), qwen_14b(8_990));
    let answer = |name| {
        let machine = mac(name);
        verdict(&[resident(&seven, &machine), resident(&fourteen, &machine)], &machine, None).fit
    };
    assert_eq!(answer("mbp-36"), Fit::Fit);
    assert_eq!(answer("air-16"), Fit::NoFit);
}

#[test]
fn what_is_suggested_for_a_machine_fits_it() {
    let suggested: [(&str, Vec<ModelShape>); 6] = [
        ("air-8", vec![llama_1b(), llama_3b_q4()]),
        ("air-16", vec![qwen_7b(4_683)]),
        ("mbp-24", vec![qwen_7b(6_254), qwen_14b(8_990)]),
        ("mbp-36", vec![qwen_14b(12_125)]),
        ("mac-64", vec![qwen_32b(26_886), llama_70b(42_520)]),
        ("studio-128", vec![llama_70b(57_888)]),
    ];
    for (name, shapes) in suggested {
        let machine = mac(name);
        for shape in shapes {
            let answer = verdict(&[resident(&shape, &machine)], &machine, None);
            assert_ne!(answer.fit, Fit::NoFit, "{answer}");
        }
    }
    let below = [7, 8, 16, 18, 24, 36, 48, 64, 128, 512].map(|gib| suited_to(Bytes::gib(gib)));
    assert_eq!(below[1], below[0].replace("below 1B parameters", "1B to 3B parameters"));
    assert_eq!((below[2], below[5]), (below[3], below[6]));
}

#[test]
fn a_7b_model_with_the_defaults_fits_every_machine_from_16_gb_on() {
    for machine in Machine::line_up().into_iter().filter(|machine| machine.ram >= Bytes::gib(16)) {
        let answer = verdict(&[resident(&qwen_7b(4_683), &machine)], &machine, None);
        assert_eq!(answer.fit, Fit::Fit, "{answer}");
    }
}

#[test]
fn a_model_that_is_too_large_is_refused_with_numbers_and_a_smaller_quantisation() {
    let machine = mac("air-8");
    let shape = qwen_7b(4_683);
    let (_, answer) = judge(&shape, &PlanRequest::new(Device::UnifiedGpu), &machine, None).unwrap();
    assert_eq!(answer.fit, Fit::NoFit);
    let [WayOut::Quantisation { name, weights, needs }] = answer.ways_out.as_slice() else { panic!("{answer}") };
    assert_eq!(name, "Q3_K_S");
    assert!(*weights < Bytes::gb(4) && needs <= &answer.bounds[0].room, "{answer}");
    assert_eq!(
        answer.to_string(),
        "NO-FIT on air-8: needs 5.1 GB of GPU memory, 4.3 GB can be made free (GPU working set of 5.7 GB less a margin of 1.4 GB), \
         short by 801.6 MB; way out: the same model as Q3_K_S, a file of about 3.5 GB, needs about 3.9 GB"
    );
}

#[test]
fn a_model_that_no_quantisation_saves_is_answered_with_the_size_that_suits() {
    let (_, answer) = judge(&llama_70b(42_520), &PlanRequest::new(Device::UnifiedGpu), &mac("air-16"), None).unwrap();
    assert_eq!(answer.fit, Fit::NoFit);
    assert_eq!(answer.ways_out, [WayOut::SmallerModel { suggestion: "7B to 8B parameters as Q4_K_M".to_owned() }]);
}

#[test]
fn a_long_context_is_answered_with_a_shorter_one() {
    let machine = mac("air-16");
    let long = PlanRequest {
        n_ctx: 131_072,
        type_k: KvType::F16,
        type_v: KvType::F16,
        ..PlanRequest::new(Device::UnifiedGpu)
    };
    let (planned, answer) = judge(&qwen_7b(4_683), &long, &machine, None).unwrap();
    assert_eq!(answer.fit, Fit::NoFit);
    let offered = answer.ways_out.iter().find_map(|way| match way {
        WayOut::Context { n_ctx, needs } => Some((*n_ctx, *needs)),
        _ => None,
    });
    let (n_ctx, needs) = offered.unwrap();
    assert!(needs < planned.gpu_working_set());
    let shorter = PlanRequest { n_ctx, ..long.clone() };
    assert_ne!(judge(&qwen_7b(4_683), &shorter, &machine, None).unwrap().1.fit, Fit::NoFit);
    let twice = PlanRequest { n_ctx: n_ctx * 2, ..long };
    assert_eq!(
        judge(&qwen_7b(4_683), &twice, &machine, None).unwrap().1.fit,
        Fit::NoFit,
        "a longer one would have fitted"
    );
}

#[test]
fn every_way_out_leads_out() {
    let mut tried = 0;
    for machine in Machine::line_up() {
        for shape in [qwen_7b(15_240), qwen_14b(29_550), llama_70b(57_888), gemma3_12b()] {
            for n_ctx in [8192, 32_768, 131_072] {
                let request = PlanRequest { n_ctx, ..PlanRequest::new(Device::UnifiedGpu) };
                let (_, answer) = judge(&shape, &request, &machine, None).unwrap();
                assert_eq!(answer.ways_out.is_empty(), answer.fit != Fit::NoFit, "{answer}");
                for way in &answer.ways_out {
                    let (shape, request) = match way {
                        WayOut::Context { n_ctx, .. } => {
                            (shape.clone(), PlanRequest { n_ctx: *n_ctx, ..request.clone() })
                        }
                        WayOut::Kv { type_k, type_v, .. } => {
                            (shape.clone(), PlanRequest { type_k: *type_k, type_v: *type_v, ..request.clone() })
                        }
                        WayOut::Quantisation { weights, .. } => {
                            let mut smaller = shape.clone();
                            smaller.weights.bytes = *weights;
                            (smaller, request.clone())
                        }
                        WayOut::SmallerModel { .. } => continue,
                        WayOut::FreeMemory { .. } => panic!("nothing was said about memory now"),
                    };
                    tried += 1;
                    assert_ne!(judge(&shape, &request, &machine, None).unwrap().1.fit, Fit::NoFit, "{answer}");
                }
            }
        }
    }
    assert!(tried >= 20, "only {tried} ways out were offered");
}

#[test]
fn memory_that_is_taken_now_makes_it_tight_and_says_how_much_to_free() {
    let machine = Machine::cpu("this machine", Bytes::gib(16), 4);
    let shape = qwen_7b(4_683);
    let request = PlanRequest::new(Device::Cpu);
    let judge = |now| judge(&shape, &request, &machine, Some(now)).unwrap().1;
    assert_eq!(judge(Bytes::gb(11)).fit, Fit::Fit);

    let answer = judge(Bytes::gb(3));
    assert_eq!((answer.fit, answer.bounds[0].name.as_str()), (Fit::Tight, "memory now"));
    assert_eq!(answer.ways_out, [WayOut::FreeMemory { bytes: answer.bounds[0].short_by() }]);

    // A little too little: a smaller context or smaller values would do as well.
    let close = answer.bounds[0].needs.saturating_sub(Bytes::mb(60));
    let kinds: Vec<_> = judge(close).ways_out.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 3, "{:?}", judge(close).ways_out);
}

#[test]
fn a_fit_with_less_than_a_tenth_to_spare_is_tight() {
    let machine = mac("air-16");
    let fit = |mb| verdict(&[resident(&qwen_7b(mb), &machine)], &machine, None).fit;
    assert_eq!([fit(7_800), fit(8_500), fit(9_200)], [Fit::Fit, Fit::Tight, Fit::NoFit]);
}

#[test]
fn speed_is_an_upper_bound_from_bandwidth_and_active_bytes() {
    let air = mac("air-16");
    let ceiling = air.decode_ceiling(&qwen_7b(4_683)).unwrap();
    assert!((ceiling - 100.0 / 4.683).abs() < 0.01, "{ceiling}");
    let mut moe = qwen_7b(4_683);
    moe.active_parameters = moe.parameters / 4;
    assert!((air.decode_ceiling(&moe).unwrap() / ceiling - 4.0).abs() < 0.01);
    assert_eq!(Machine::cpu("this machine", Bytes::gib(16), 4).decode_ceiling(&moe), None);
}

#[test]
fn machines_are_known_by_name_and_leave_room_for_the_system() {
    let names: Vec<String> = Machine::line_up().into_iter().map(|machine| machine.name).collect();
    assert_eq!(names, ["air-8", "air-16", "mbp-24", "mbp-36", "mac-64", "studio-128"]);
    assert_eq!(Machine::named("air-17"), None);
    for machine in Machine::line_up() {
        let gpu = machine.gpu_memory.unwrap();
        let rooms = [machine.room().bytes, machine.gpu_room().unwrap().bytes];
        assert!(rooms.iter().all(|room| !room.is_zero() && *room < machine.ram), "{}", machine.name);
        assert!(rooms[1] < gpu && gpu < machine.ram, "{}", machine.name);
    }
    // A machine too small for the system's own share has no room, and no arithmetic fails.
    assert_eq!(Machine::cpu("tiny", Bytes::gib(1), 1).room().bytes, Bytes::ZERO);
}
